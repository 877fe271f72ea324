"""One module a command; nothing imports from here."""

import warnings

# what torch will drop some day, and other packages use, would stand before our own messages
warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\b")
