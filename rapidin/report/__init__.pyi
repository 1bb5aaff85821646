from .display_data import (
    page_data as page_data,
)
from .page_assembly import (
    SCRIPTS as SCRIPTS,
    STYLES as STYLES,
    PageParts as PageParts,
)
from .report_page import (
    render_report as render_report,
)
from .report_writing import (
    write_report as write_report,
)
from .store_facts import (
    report_facts as report_facts,
)
