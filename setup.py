"""Makes an editable install a path, which type checkers follow; everything else is in setup.cfg."""

from setuptools import setup
from setuptools.command.editable_wheel import editable_wheel


class AsPath(editable_wheel):
    def finalize_options(self):
        super().finalize_options()
        self.mode = self.mode or "compat"


setup(cmdclass={"editable_wheel": AsPath})
