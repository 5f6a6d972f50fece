from django.urls import path

from . import views

urlpatterns = [
    path("sessions/", views.sessions),
    path("sessions/<uuid:session_id>/parts/<int:part_number>/", views.session_part),
    path("sessions/<uuid:session_id>/finalize/", views.finalize),
    path("files/<uuid:file_id>/", views.download),
    path("parts/<str:session_id>/<int:part_number>/", views.bare_part),
    path("ready/", views.ready),
]
