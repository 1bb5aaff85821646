from .assembly import (
    SCRIPTS as SCRIPTS,
)
from .assembly import (
    STYLES as STYLES,
)
from .assembly import (
    Parts as Parts,
)
from .page_data import (
    page_data as page_data,
)
from .report_facts import (
    report_facts as report_facts,
)
from .report_page import (
    render_report as render_report,
)
from .report_writing import (
    write_report as write_report,
)
