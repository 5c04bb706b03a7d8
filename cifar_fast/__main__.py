import sys

from cifar_fast.cli import main

sys.exit(main())
