import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for folder in ("python", "benchmarks"):
    sys.path.insert(0, str(ROOT / folder))
