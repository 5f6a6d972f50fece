from django.urls import include, path

from . import views

urlpatterns = [
    path("sessions/", views.sessions),
    path("sessions/<uuid:session_id>/parts/<int:part_number>/", views.session_part),
    path("sessions/<uuid:session_id>/finalize/", views.finalize),
    path("files/<uuid:file_id>/", views.download),
    path("objects/", include("storage.urls")),  # what url_final leads to, but for S3
    path("parts/<str:session_id>/<int:part_number>/", views.bare_part),
    path("ready/", views.ready),
]
