"""DragBench: 205 drags on pictures of ten categories, edited and judged as published."""
