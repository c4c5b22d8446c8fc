# The one list of public names: where each is defined. ``__init__.py`` imports a name when it is first used.

from .api.analyse import analyse_complexity as analyse_complexity
from .api.analyse import analyse_layers as analyse_layers
from .api.analyse import analyse_receptive as analyse_receptive
from .api.data import data as data
from .api.data import load as load
from .api.evaluate import evaluate as evaluate
from .api.models import create_model as create_model
from .api.models import models as models
from .api.predict import predict as predict
from .api.report import report as report
from .api.show import show as show
from .api.train import train as train
from .compute.compiling import speed_up as speed_up
from .cost.count import cost as cost
from .cost.count import count_memory as count_memory
from .cost.fit import largest_batches as largest_batches
from .cost.measure import measure_step as measure_step
from .cost.table import make_cost_table as make_cost_table
from .data.catalogue import describe_data as describe_data
from .data.catalogue import list_data as list_data
from .data.check import check as check
from .data.convert import convert as convert
from .demo import demo as demo
from .errors import FramecastError as FramecastError
from .plugins import import_plugin as import_plugin
from .registry import CellEntry as CellEntry
from .registry import list_models as list_models
from .registry import register_cell as register_cell
from .studies.run import study as study
from .weights.importing import import_weights as import_weights
from .weights.saving import save_weights as save_weights

__version__: str
