"""Addresses of the message queue's API (queue contract section 1)."""

from django.urls import path

from queueing.views import plane
from queueing.views.edge import route

urlpatterns = [
    path("api/v1/push", route(POST=plane.push)),
    path("api/v1/pop", route(GET=plane.pop)),
    path("api/v1/pop/queue/<path:queue>/partition/<path:partition>", route(GET=plane.pop)),
    path("api/v1/pop/queue/<path:queue>", route(GET=plane.pop)),
    path("api/v1/ack", route(POST=plane.ack)),
    path("api/v1/ack/batch", route(POST=plane.ack_batch)),
    path("api/v1/transaction", route(POST=plane.transaction)),
    path("api/v1/lease/<str:lease>/extend", route(POST=plane.extend)),
]
