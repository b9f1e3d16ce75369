"""What holds for all tests."""

from hypothesis import settings

settings.register_profile("patient", deadline=None)  # how long an example takes says what else the machine does
settings.load_profile("patient")
