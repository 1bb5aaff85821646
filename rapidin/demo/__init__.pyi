from .demo_data import (
    TRIGGER as TRIGGER,
    DemoData as DemoData,
    write_demo_data as write_demo_data,
)
from .demo_model import (
    train_demo_model as train_demo_model,
)
from .demo_run import (
    TOP as TOP,
    DemoFigures as DemoFigures,
    DemoListener as DemoListener,
    DemoResult as DemoResult,
    run_demo as run_demo,
)
