"""Makes `together` a module that forked ranks find by its name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
