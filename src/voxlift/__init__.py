"""Give 3D medical networks a supervised start from labelled 2D photographs."""

import lazy_loader

# The stub lists what is public. A name is imported when it is first used, since torch and the other
# libraries behind it take seconds, and no program uses all of them.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
