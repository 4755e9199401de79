"""Drag-based image editing with diffusion models.

    from dragnoise.engine import Editor
    result = Editor.from_pretrained().edit("picture.png", [((60, 40), (80, 40))])
    result.image.save("edited.png")

The public names stand in `__init__.pyi` and are imported when first used: PyTorch takes seconds,
and the command line sets how its threads wait before it is loaded.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
