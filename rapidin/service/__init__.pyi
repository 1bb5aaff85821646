from .app import (
    Application as Application,
)
from .app import (
    create_app as create_app,
)
from .running import (
    address_of as address_of,
)
from .running import (
    listen as listen,
)
from .running import (
    serve as serve,
)
from .service import (
    Service as Service,
)
from .service_settings import (
    Limits as Limits,
)
from .service_settings import (
    ServiceSettings as ServiceSettings,
)
from .service_settings import (
    read_token as read_token,
)
