"""A service: sessions by HTTP, a pointer's drags by WebSocket, and the page that shows them.

    from dragnoise.engine import Editor
    from dragnoise.engine.serve import ServeSettings, create_app
    app = create_app(Editor.from_pretrained(), ServeSettings(token="..."))

What it imports (`pip install dragnoise[serve]`) is loaded when a name is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
