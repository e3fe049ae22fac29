"""python -m ushape"""

from ushape.cli import main

main()
