"""What the recipes for detectors take from the papers, and that the small ones learn."""

from voxlift.recipes.detection import coco_p3d63, coco_small, deeplesion_mp3d63, detect_few


def test_the_papers_lesion_detector() -> None:
    config = deeplesion_mp3d63()
    assert config.batch_size * config.accumulate == 16
    assert [round(share * 24) for share in config.optimization.milestones] == [16, 22]
    assert config.augmentation.flip_y == 0.0


def test_a_photograph_detector_gives_its_weights_to_the_lesion_detector() -> None:
    for before, after in ((coco_p3d63(), deeplesion_mp3d63()), (coco_small(), detect_few())):
        assert before.augmentation.shuffle_slices
        assert not after.augmentation.shuffle_slices
        assert before.detector == after.detector
        assert before.slices.mean_std == after.slices.mean_std
        assert before.network.backbone == after.network.backbone
