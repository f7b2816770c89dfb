"""Pure decisions: XML in, values out. No libvirt, no Redis, no Celery; time is an argument."""
