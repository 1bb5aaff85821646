from .computer import (
    Computer as Computer,
    open_computer as open_computer,
)
