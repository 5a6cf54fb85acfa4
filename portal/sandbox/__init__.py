"""A local AWS that speaks the real wire protocol: moto's server with our own ECS rollout engine on top.

Started with `python -m portal.sandbox`. The portal reaches it only through boto3 and `AWS_ENDPOINT_URL`. This package
imports nothing from the rest of the portal.
"""
