import sys

from cifar_fast.cli.main import main

sys.exit(main())
