"""Errors that a callback raises."""


class Told(Exception):
    "An error whose words reach the user as they are: fastai puts its own into the `args` of what a callback raises."

    def __init__(self, message: str):
        super().__init__(message)
        self.message = message

    def __str__(self):
        return self.message
