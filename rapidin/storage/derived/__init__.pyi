from . import (
    derived_records as derived_records,
)
from .curvature import (
    CURVATURE as CURVATURE,
    ComputedProbes as ComputedProbes,
    CurvatureOptions as CurvatureOptions,
    CurvatureState as CurvatureState,
    ProbeRequest as ProbeRequest,
    StoredCurvature as StoredCurvature,
)
from .derived_building import (
    build_derived as build_derived,
    drop_derived as drop_derived,
)
from .derived_files import (
    copy_file as copy_file,
)
from .derived_kind import (
    BuildStep as BuildStep,
    BuildWork as BuildWork,
    DerivedKind as DerivedKind,
    StepProgress as StepProgress,
    StoreFacts as StoreFacts,
)
from .derived_records import (
    DerivedRecord as DerivedRecord,
    WrittenFile as WrittenFile,
)
from .indexes import (
    EXACT as EXACT,
    IndexKind as IndexKind,
    IvfOptions as IvfOptions,
    SearchIndex as SearchIndex,
    SearchIndexes as SearchIndexes,
)
from .inspection import (
    checks as checks,
    derived_info as derived_info,
)
from .kinds import (
    KINDS as KINDS,
    folders as folders,
    index_kinds as index_kinds,
    kind_named as kind_named,
    left_out as left_out,
    uncovered_notes as uncovered_notes,
)
from .travelling import (
    Travelling as Travelling,
    take as take,
    travelling as travelling,
)
