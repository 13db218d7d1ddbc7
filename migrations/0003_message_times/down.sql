DROP INDEX metrics_default_timestamp;
DROP TABLE message_times;
