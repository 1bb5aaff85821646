from .fingerprints import (
    ADAPTER_SETTINGS as ADAPTER_SETTINGS,
    adapter_settings as adapter_settings,
    check_checkpoints as check_checkpoints,
    check_same as check_same,
    checked_settings as checked_settings,
    describe_difference as describe_difference,
    digest_of_settings as digest_of_settings,
    fingerprint as fingerprint,
    window_places as window_places,
    with_checkpoints as with_checkpoints,
)
from .locating import (
    absolute_place as absolute_place,
    local_directory as local_directory,
    weight_files as weight_files,
)
