"""One module a command; nothing imports from here."""

import warnings

# what torch will drop some day, and nerfstudio uses, would stand before our own messages
warnings.filterwarnings("ignore", category=FutureWarning, module=r"(torch|nerfstudio)\b")
# of nerfstudio's code about itself, and of its loaders' processes about the number of cores
warnings.filterwarnings("ignore", category=UserWarning, module=r"(nerfstudio|torch\.utils\.data)\b")
