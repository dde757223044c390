import subprocess
import sys

_CODE = """
import sys
sys.modules["ophyd_async"] = sys.modules["caproto"] = None  # an attempt to import them fails
from tomogan_bluesky.sim import area_detector, beamline, devices, exposure, plans
"""


def test_the_demo_needs_neither_ophyd_async_nor_caproto():
    subprocess.run([sys.executable, "-c", _CODE], check=True)
