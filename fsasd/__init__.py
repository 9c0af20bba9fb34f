import logging
from importlib.metadata import version

__version__ = version("fsasd")

# peft imports bitsandbytes where it is installed, which then warns of kernels that 8-bit Adam, for
# which one has it, does not use.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
