"""Look once for dead processes in the broker folder FOLDER and print how many there were: look.py FOLDER."""

import sys
from pathlib import Path

from workflow_service.gateways.broker_folder import join

owner = join(Path(sys.argv[1]))
print(owner.recover_dead())
owner.leave()
