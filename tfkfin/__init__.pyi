from tfkfin.api import Decoder as Decoder
from tfkfin.api import read as read
from tfkfin.scikit import FINClassifier as FINClassifier
from tfkfin.scikit import FINFeatures as FINFeatures

__version__: str
__all__ = ["Decoder", "FINClassifier", "FINFeatures", "__version__", "read"]
