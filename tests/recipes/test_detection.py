"""What the recipes for detectors take from the papers, and that the small ones learn."""

from voxlift.recipes.detection import coco_p3d63, coco_small, deeplesion_mp3d63, detect_few


def test_the_papers_lesion_detector() -> None:
    config = deeplesion_mp3d63()
    slices, detector = config.slices, config.detector
    assert config.network.backbone == "mp3d63"
    assert (slices.num_slices, slices.slice_interval_mm, slices.window) == (9, 2.5, "lesions")
    assert (detector.head, detector.fpn_channels, detector.head_width) == ("faster-rcnn", 256, 1024)
    assert (detector.anchor_scale, detector.anchor_ratios) == (4.0, (0.5, 1.0, 2.0))
    sizes = config.augmentation.image_sizes
    assert (min(sizes), max(sizes)) == (384, 640)
    assert (config.augmentation.flip_slices, config.augmentation.flip_y) == (0.5, 0.0)
    assert config.epochs == 24
    assert [round(share * 24) for share in config.optimization.milestones] == [16, 22]
    assert (config.optimization.optimizer, config.optimization.lr) == ("sgd", 0.02)


def test_a_photograph_detector_gives_its_weights_to_the_lesion_detector() -> None:
    for before, after in ((coco_p3d63(), deeplesion_mp3d63()), (coco_small(), detect_few())):
        assert before.augmentation.shuffle_slices
        assert not after.augmentation.shuffle_slices
        assert before.detector == after.detector
        assert before.network.backbone == after.network.backbone
