"""The yardstick's web process. It leaves out the product's part at the begin and end of each request."""

from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application

from portal import tenancy

application = get_wsgi_application()
for signal in (request_started, request_finished):
    signal.disconnect(tenancy.leave)
