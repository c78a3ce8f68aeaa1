"""How fast smsqueue is, beside the same work done with Celery or Flask alone: ``make bench``.

Each module measures one thing in pairs, ours and the bare one in turn, so that what else the
machine does hits both. Read the ratios; the times are those of one machine on one day.
"""
