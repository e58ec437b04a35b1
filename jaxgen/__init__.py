"""jaxgen: generative models in JAX with one small functional algebra.

Names are imported when they are first used, so that `import jaxgen` costs nothing over `import jax`.
"""

import lazy_loader

from jaxgen._version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
