"""What one would write without smsqueue, put through the same faults as smsqueue."""
