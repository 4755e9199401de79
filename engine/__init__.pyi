from .backends import Placement as Placement
from .cache import Limits as Limits
from .cache import Store as Store
from .config import DragConfig as DragConfig
from .config import DragDiffusionConfig as DragDiffusionConfig
from .config import DragGANConfig as DragGANConfig
from .config import FastConfig as FastConfig
from .config import FreeDragConfig as FreeDragConfig
from .config import GoodDragConfig as GoodDragConfig
from .config import PersonaliseConfig as PersonaliseConfig
from .config import PictureLimits as PictureLimits
from .config import WarpConfig as WarpConfig
from .diffusion.lora.adapter import Adapter as Adapter
from .editor import Editor as Editor
from .errors import (
    AdapterError as AdapterError,
)
from .errors import (
    BackendError as BackendError,
)
from .errors import (
    CacheWarning as CacheWarning,
)
from .errors import (
    CancelledError as CancelledError,
)
from .errors import (
    ConfigError as ConfigError,
)
from .errors import (
    DeadlineError as DeadlineError,
)
from .errors import (
    DeviceError as DeviceError,
)
from .errors import (
    DragnoiseError as DragnoiseError,
)
from .errors import (
    ExportError as ExportError,
)
from .errors import (
    ForkError as ForkError,
)
from .errors import (
    ImageError as ImageError,
)
from .errors import (
    InputWarning as InputWarning,
)
from .errors import (
    MaskError as MaskError,
)
from .errors import (
    ModelError as ModelError,
)
from .errors import (
    NumbersError as NumbersError,
)
from .errors import (
    OutputError as OutputError,
)
from .errors import (
    PlanError as PlanError,
)
from .errors import (
    PointError as PointError,
)
from .errors import (
    SessionError as SessionError,
)
from .inputs.image import Image as Image
from .inputs.mask import Mask as Mask
from .inputs.points import Points as Points
from .inputs.preset import PRESETS as PRESETS
from .pipelines.generated import Generated as Generated
from .session.live import Live as Live
from .session.live import LiveFrame as LiveFrame
from .session.result import EditResult as EditResult
from .session.result import History as History
from .session.result import Record as Record
from .session.session import Session as Session
