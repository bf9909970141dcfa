"""Say which CUDA device there is; without one say what is missing, and fail.

.venv/bin/python -m tests.cuda.device
"""

import sys

try:
    from streamlstm.kernels import cuda_launch
except ImportError as error:
    sys.exit(f"nothing was tested: {error}")
if missing := cuda_launch.missing():
    sys.exit(f"nothing was tested: {missing}")
print(f"testing on {cuda_launch.device_name()}")
