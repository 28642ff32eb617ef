"""Train the demo model that sees: `python scripts/train_demo_vision.py`; see `--help`."""

import os
import sys
from pathlib import Path

# threads that spin while they wait cost half the speed when anything else runs on the machine
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parent.parent))

from demo_vision.train import main

if __name__ == "__main__":
    main()
