"""A local AWS that speaks the real wire protocol: moto's server with our own ECS rollout engine over it.

Started with `python -m portal.sandbox`. The portal reaches it through boto3 and `AWS_ENDPOINT_URL` and knows nothing
else of it; this package imports nothing of the portal.
"""
