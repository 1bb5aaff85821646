from .app import (
    Application as Application,
    create_app as create_app,
)
from .running import (
    address_of as address_of,
    listen as listen,
    serve as serve,
)
from .service import (
    Service as Service,
)
from .service_settings import (
    Limits as Limits,
    ServiceSettings as ServiceSettings,
    read_token as read_token,
)
