--
-- Orders: the targets of the default pipeline, and that pipeline
--

-- Keys are COLLATE "C": they are only compared for equality, "C" is the fastest, and
-- no locale upgrade can break the index.
CREATE TABLE @extschema@.events (
	tenant			text COLLATE "C" NOT NULL,
	event_id		uuid NOT NULL,
	event_type		text NOT NULL,
	order_id		text COLLATE "C" NOT NULL,
	amount_cents	bigint NOT NULL,
	event_time		timestamptz NOT NULL,
	kafka_partition	integer NOT NULL,
	kafka_offset	bigint NOT NULL,
	applied_at		timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (tenant, event_time, event_id)
);
COMMENT ON TABLE @extschema@.events IS 'every order event, once';
COMMENT ON COLUMN @extschema@.events.kafka_partition IS 'the partition the event came from';
COMMENT ON COLUMN @extschema@.events.kafka_offset IS 'the offset of the event in that partition';
COMMENT ON COLUMN @extschema@.events.applied_at IS 'start of the transaction that applied the event';

-- fillfactor leaves room on each page so that updates stay HOT.
CREATE TABLE @extschema@.current_orders (
	tenant			text COLLATE "C" NOT NULL,
	order_id		text COLLATE "C" NOT NULL,
	status			text NOT NULL,
	amount_cents	bigint NOT NULL,
	currency		text NOT NULL DEFAULT 'USD',
	updated_at		timestamptz NOT NULL,
	PRIMARY KEY (tenant, order_id)
) WITH (fillfactor = 70);
COMMENT ON TABLE @extschema@.current_orders IS 'the latest state of each order';
COMMENT ON COLUMN @extschema@.current_orders.status IS 'event_type of the newest event';
COMMENT ON COLUMN @extschema@.current_orders.updated_at IS 'event_time of the newest event';

SELECT pg_catalog.pg_extension_config_dump('@extschema@.events', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.current_orders', '');

INSERT INTO @extschema@.spine_pipelines (name, is_default) VALUES ('orders', true);

INSERT INTO @extschema@.spine_sinks (pipeline, target, mode, key, version, columns) VALUES
	('orders', '@extschema@.events', 'append', '{tenant,event_time,event_id}', NULL,
	 '{"tenant": "tenant", "event_id": "event_id", "event_type": "event_type",
	   "order_id": "order_id", "amount_cents": "amount_cents", "event_time": "event_time",
	   "kafka_partition": "$partition", "kafka_offset": "$offset"}'),
	('orders', '@extschema@.current_orders', 'upsert', '{tenant,order_id}', 'updated_at',
	 '{"tenant": "tenant", "order_id": "order_id", "status": "event_type",
	   "amount_cents": "amount_cents", "currency": "currency", "updated_at": "event_time"}');
