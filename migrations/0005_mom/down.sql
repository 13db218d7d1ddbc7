DROP TABLE mom_publishes;
DROP TABLE mom_subscriptions;
DROP TABLE mom_objects;
DROP TABLE mom_users;
