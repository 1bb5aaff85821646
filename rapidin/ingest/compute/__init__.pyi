from .computer import (
    Computer as Computer,
)
from .computer import (
    open_computer as open_computer,
)
