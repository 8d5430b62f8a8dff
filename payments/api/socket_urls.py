"""Addresses of the websockets."""

from django.urls import path

from payments.api.sockets import PaymentSocket, StreamSocket

websocket_urlpatterns = [
    path("ws/payments", StreamSocket.as_asgi()),
    path("ws/payments/<uuid:correlation_id>", PaymentSocket.as_asgi()),
]
