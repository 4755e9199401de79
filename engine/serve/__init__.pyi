from .app import create_app as create_app
from .client import Client as Client
from .client import ServiceError as ServiceError
from .server import run as run
from .settings import ServeSettings as ServeSettings

__all__ = ["Client", "ServeSettings", "ServiceError", "create_app", "run"]
