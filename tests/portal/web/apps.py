from django.apps import AppConfig


class WebConfig(AppConfig):
    name = "portal.web"

    def ready(self) -> None:
        from storage.tus.signals import upload_finished

        from .rules import remove_program

        upload_finished.connect(remove_program)
