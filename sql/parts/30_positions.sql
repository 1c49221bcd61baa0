--
-- Positions: how far each partition is applied, and how to move that
--

CREATE TABLE @extschema@.spine_offsets (
	pipeline	name NOT NULL REFERENCES @extschema@.spine_pipelines ON UPDATE CASCADE ON DELETE CASCADE,
	topic		text NOT NULL,
	partition	integer NOT NULL CHECK (partition >= 0),
	next_offset	bigint NOT NULL CHECK (next_offset >= 0),
	cluster_id	text NOT NULL,
	updated_at	timestamptz NOT NULL DEFAULT now(),
	worker_next_offset	bigint,
	mark_offset	bigint CHECK (mark_offset >= 0),
	mark_crc	bigint,
	PRIMARY KEY (pipeline, topic, partition)
) WITH (fillfactor = 50);
COMMENT ON TABLE @extschema@.spine_offsets IS
'the position of each partition, written in the transaction that applied the records before it';
COMMENT ON COLUMN @extschema@.spine_offsets.next_offset IS 'the first offset not yet applied';
COMMENT ON COLUMN @extschema@.spine_offsets.cluster_id IS 'the broker cluster that the position belongs to';
COMMENT ON COLUMN @extschema@.spine_offsets.worker_next_offset IS
'next_offset as a worker last wrote it; where the two differ, the position was moved by hand and the mark means nothing';
COMMENT ON COLUMN @extschema@.spine_offsets.mark_offset IS
'offset of the last record before next_offset; a worker reads that record again when it starts, to tell whether this is still the same log';
COMMENT ON COLUMN @extschema@.spine_offsets.mark_crc IS 'checksum of the record at mark_offset (CRC-32C of timestamp, key and value)';

SELECT pg_catalog.pg_extension_config_dump('@extschema@.spine_offsets', '');

-- The condition spares the workers, which are superusers and move positions all the
-- time.  Role 10 is the bootstrap superuser.
CREATE TRIGGER spine_check_member
	AFTER INSERT OR UPDATE OR DELETE ON @extschema@.spine_offsets
	FOR EACH ROW WHEN (NOT pg_catalog.pg_has_role(10::oid, 'USAGE'))
	EXECUTE FUNCTION @extschema@.spine_check_member();
CREATE TRIGGER spine_check_truncate
	BEFORE TRUNCATE ON @extschema@.spine_offsets
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.spine_check_member();

-- When a position is changed by hand, the workers read the positions again at once.
CREATE TRIGGER spine_moved_by_hand
	AFTER UPDATE ON @extschema@.spine_offsets
	FOR EACH ROW WHEN (NEW.next_offset IS DISTINCT FROM NEW.worker_next_offset)
	EXECUTE FUNCTION @extschema@.spine_catalog_changed();
CREATE TRIGGER spine_deleted_by_hand
	AFTER DELETE ON @extschema@.spine_offsets
	FOR EACH ROW EXECUTE FUNCTION @extschema@.spine_catalog_changed();
CREATE TRIGGER spine_truncated_by_hand
	AFTER TRUNCATE ON @extschema@.spine_offsets
	FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.spine_catalog_changed();

CREATE FUNCTION @extschema@.spine_topic_offsets(topic text, since timestamptz DEFAULT NULL,
	OUT partition integer, OUT first_offset bigint, OUT end_offset bigint,
	OUT since_offset bigint, OUT cluster_id text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'spine_topic_offsets'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_topic_offsets(text, timestamptz) IS
'what the broker has of a topic: per partition the first offset, the end, and the first record not older than `since`';
REVOKE ALL ON FUNCTION @extschema@.spine_topic_offsets(text, timestamptz) FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_topic_offsets(topic text, since timestamptz, server name, as_role regrole DEFAULT NULL,
	OUT partition integer, OUT first_offset bigint, OUT end_offset bigint,
	OUT since_offset bigint, OUT cluster_id text)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'spine_topic_offsets'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_topic_offsets(text, timestamptz, name, regrole) IS
'the same of another server, as a role uses it: NULL means the current user';
REVOKE ALL ON FUNCTION @extschema@.spine_topic_offsets(text, timestamptz, name, regrole) FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_find_topics(topics text, server name DEFAULT NULL, as_role regrole DEFAULT NULL,
	OUT topic text, OUT partitions integer)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'spine_find_topics'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_find_topics(text, name, regrole) IS
'the topics that a list or a regular expression stands for; those of a list that do not exist have no partitions';
REVOKE ALL ON FUNCTION @extschema@.spine_find_topics(text, name, regrole) FROM PUBLIC;

-- What the functions spine_seek share.  Exactly one of the last three arguments is not
-- null and says where to go.  The rows are locked in the order in which the workers lock
-- them.
CREATE FUNCTION @extschema@.spine_move_positions_as(
	caller oid, of_pipeline name, of_topic text, of_partition integer, to_offset bigint, since timestamptz, place text)
RETURNS TABLE (topic text, partition integer, old_offset bigint, new_offset bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	of_row		@extschema@.spine_pipelines := @extschema@.spine_lock_pipeline(caller, of_pipeline);
	topics		text := @extschema@.spine_pipeline_topic(of_row.topic);
	counts		jsonb;		-- how many partitions each topic has
	log			record;
	went_back	boolean := false;
	repeated	regclass;
BEGIN
	PERFORM @extschema@.spine_check_triggers('@extschema@.spine_offsets'::regclass);
	IF num_nonnulls(to_offset, since, place) = 0 THEN
		RAISE EXCEPTION 'the target of spine_seek must not be null'
			USING ERRCODE = 'null_value_not_allowed';
	END IF;
	IF NOT @extschema@.spine_topic_matches(of_topic, topics) THEN
		RAISE EXCEPTION 'pipeline "%" does not read topic "%"', of_pipeline, of_topic
			USING ERRCODE = 'invalid_parameter_value',
				  DETAIL = format('It reads "%s".', topics);
	END IF;
	IF of_topic IS NULL AND of_partition IS NOT NULL AND topics ~ '^\^|,' THEN
		RAISE EXCEPTION 'pipeline "%" reads several topics, and each has a partition %', of_pipeline, of_partition
			USING ERRCODE = 'invalid_parameter_value',
				  HINT = 'Say which topic: spine_seek(pipeline, partition, target, topic).';
	END IF;

	SELECT jsonb_object_agg(t.topic, t.partitions)
	INTO counts
	FROM @extschema@.spine_find_topics(coalesce(of_topic, topics), of_row.server, of_row.owner) t
	WHERE t.partitions > 0;
	IF counts IS NULL THEN
		RAISE EXCEPTION 'topic "%" does not exist', coalesce(of_topic, topics)
			USING ERRCODE = 'undefined_object';
	END IF;
	IF of_partition IS NOT NULL AND of_partition NOT BETWEEN 0 AND (counts ->> coalesce(of_topic, topics))::integer - 1 THEN
		RAISE EXCEPTION 'topic "%" has no partition %', coalesce(of_topic, topics), of_partition
			USING ERRCODE = 'invalid_parameter_value';
	END IF;

	FOR log IN
		SELECT c.topic, t.partition, t.first_offset, t.end_offset, t.cluster_id,
			   CASE WHEN to_offset IS NOT NULL THEN to_offset
					WHEN since IS NOT NULL THEN t.since_offset
					WHEN place = 'earliest' THEN t.first_offset
					ELSE t.end_offset END AS next_offset
		FROM jsonb_object_keys(counts) c (topic)
		CROSS JOIN LATERAL @extschema@.spine_topic_offsets(c.topic, since, of_row.server, of_row.owner) t
		WHERE of_partition IS NULL OR t.partition = of_partition
		ORDER BY 1, 2
	LOOP
		IF log.next_offset NOT BETWEEN log.first_offset AND log.end_offset THEN
			RAISE EXCEPTION 'partition % of topic "%" has no offset %', log.partition, log.topic, log.next_offset
				USING ERRCODE = 'invalid_parameter_value',
					  DETAIL = format('The partition begins at offset %s and ends before offset %s.', log.first_offset, log.end_offset);
		END IF;
		IF (of_partition IS NOT NULL OR of_topic <> topics) AND EXISTS (
			SELECT FROM @extschema@.spine_offsets o
			WHERE o.pipeline = of_pipeline AND @extschema@.spine_topic_matches(o.topic, topics)
				AND o.cluster_id <> log.cluster_id) THEN
			RAISE EXCEPTION 'the positions of pipeline "%" belong to another cluster', of_pipeline
				USING ERRCODE = 'object_not_in_prerequisite_state',
					  HINT = 'Move all partitions at once: give NULL as the partition, and no topic.';
		END IF;

		topic := log.topic;
		partition := log.partition;
		new_offset := log.next_offset;
		SELECT o.next_offset
		INTO old_offset
		FROM @extschema@.spine_offsets o
		WHERE o.pipeline = of_pipeline AND o.topic = log.topic AND o.partition = log.partition
		FOR UPDATE;
		INSERT INTO @extschema@.spine_offsets AS o (pipeline, topic, partition, next_offset, cluster_id)
		VALUES (of_pipeline, log.topic, log.partition, log.next_offset, log.cluster_id)
		ON CONFLICT (pipeline, topic, partition) DO UPDATE
		SET next_offset = EXCLUDED.next_offset, cluster_id = EXCLUDED.cluster_id, updated_at = now(),
			worker_next_offset = NULL, mark_offset = NULL, mark_crc = NULL;
		went_back := went_back OR coalesce(new_offset < old_offset, false);
		RETURN NEXT;
	END LOOP;

	IF of_partition IS NULL THEN
		DELETE FROM @extschema@.spine_offsets o
		WHERE o.pipeline = of_pipeline AND @extschema@.spine_topic_matches(o.topic, coalesce(of_topic, topics))
			AND o.partition >= coalesce((counts ->> o.topic)::integer, 0);
	END IF;

	FOR repeated IN
		SELECT s.target
		FROM @extschema@.spine_sinks s
		WHERE went_back AND s.pipeline = of_pipeline AND s.mode = 'upsert' AND s.version IS NULL
		ORDER BY s.ordinal
	LOOP
		RAISE NOTICE 'table % passes through older states again, and ends in the right one', repeated
			USING DETAIL = 'Its sink has no version, so the order of the log decides.';
	END LOOP;
END
$$;
COMMENT ON FUNCTION @extschema@.spine_move_positions_as(oid, name, text, integer, bigint, timestamptz, text) IS
'part of spine_seek';
REVOKE ALL ON FUNCTION @extschema@.spine_move_positions_as(oid, name, text, integer, bigint, timestamptz, text) FROM PUBLIC;

CREATE FUNCTION @extschema@.spine_move_positions(
	of_pipeline name, of_topic text, of_partition integer, to_offset bigint, since timestamptz, place text)
RETURNS TABLE (topic text, partition integer, old_offset bigint, new_offset bigint)
AS 'MODULE_PATHNAME', 'spine_gate'
LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.spine_move_positions(name, text, integer, bigint, timestamptz, text) IS
'part of spine_seek';
GRANT EXECUTE ON FUNCTION @extschema@.spine_move_positions(name, text, integer, bigint, timestamptz, text) TO PUBLIC;

CREATE FUNCTION @extschema@.spine_seek(of_pipeline name, of_partition integer, target bigint)
RETURNS TABLE (partition integer, old_offset bigint, new_offset bigint)
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT m.partition, m.old_offset, m.new_offset
	FROM @extschema@.spine_move_positions(of_pipeline, NULL::text, of_partition, target, NULL::timestamptz, NULL::text) m
$$;
COMMENT ON FUNCTION @extschema@.spine_seek(name, integer, bigint) IS
'let a pipeline go on from an offset of a partition (NULL: of each)';
GRANT EXECUTE ON FUNCTION @extschema@.spine_seek(name, integer, bigint) TO PUBLIC;

CREATE FUNCTION @extschema@.spine_seek(of_pipeline name, of_partition integer, target timestamptz)
RETURNS TABLE (partition integer, old_offset bigint, new_offset bigint)
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT m.partition, m.old_offset, m.new_offset
	FROM @extschema@.spine_move_positions(of_pipeline, NULL::text, of_partition, NULL::bigint, target, NULL::text) m
$$;
COMMENT ON FUNCTION @extschema@.spine_seek(name, integer, timestamptz) IS
'let a pipeline go on from the first record of a partition (NULL: of each) that is not older than a time';
GRANT EXECUTE ON FUNCTION @extschema@.spine_seek(name, integer, timestamptz) TO PUBLIC;

-- A quoted offset or time, which has no type yet, comes here.
CREATE FUNCTION @extschema@.spine_seek(of_pipeline name, of_partition integer, target text)
RETURNS TABLE (partition integer, old_offset bigint, new_offset bigint)
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT s.partition, s.old_offset, s.new_offset
	FROM @extschema@.spine_seek(of_pipeline, of_partition, target, NULL::text) s
$$;
COMMENT ON FUNCTION @extschema@.spine_seek(name, integer, text) IS
'let a pipeline go on from the start (''earliest'') or the end (''latest'') of a partition (NULL: of each)';
GRANT EXECUTE ON FUNCTION @extschema@.spine_seek(name, integer, text) TO PUBLIC;

-- In a pipeline that reads several topics, a partition has to be named with its topic.
CREATE FUNCTION @extschema@.spine_seek(of_pipeline name, of_partition integer, target bigint, of_topic text)
RETURNS TABLE (topic text, partition integer, old_offset bigint, new_offset bigint)
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT *
	FROM @extschema@.spine_move_positions(of_pipeline, of_topic, of_partition, target, NULL::timestamptz, NULL::text) m
$$;
COMMENT ON FUNCTION @extschema@.spine_seek(name, integer, bigint, text) IS
'let a pipeline go on from an offset of a partition (NULL: of each), of one topic (NULL: of each)';
GRANT EXECUTE ON FUNCTION @extschema@.spine_seek(name, integer, bigint, text) TO PUBLIC;

CREATE FUNCTION @extschema@.spine_seek(of_pipeline name, of_partition integer, target timestamptz, of_topic text)
RETURNS TABLE (topic text, partition integer, old_offset bigint, new_offset bigint)
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT *
	FROM @extschema@.spine_move_positions(of_pipeline, of_topic, of_partition, NULL::bigint, target, NULL::text) m
$$;
COMMENT ON FUNCTION @extschema@.spine_seek(name, integer, timestamptz, text) IS
'let a pipeline go on from the first record of a partition (NULL: of each) that is not older than a time, of one topic (NULL: of each)';
GRANT EXECUTE ON FUNCTION @extschema@.spine_seek(name, integer, timestamptz, text) TO PUBLIC;

CREATE FUNCTION @extschema@.spine_seek(of_pipeline name, of_partition integer, target text, of_topic text)
RETURNS TABLE (topic text, partition integer, old_offset bigint, new_offset bigint)
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT *
	FROM @extschema@.spine_move_positions(
		of_pipeline, of_topic, of_partition,
		CASE WHEN target ~ '^-?\d+$' THEN target::bigint END,
		CASE WHEN target !~ '^-?\d+$' AND target NOT IN ('earliest', 'latest') THEN target::timestamptz END,
		CASE WHEN target IN ('earliest', 'latest') THEN target END) m
$$;
COMMENT ON FUNCTION @extschema@.spine_seek(name, integer, text, text) IS
'let a pipeline go on from the start (''earliest'') or the end (''latest'') of a partition (NULL: of each), of one topic (NULL: of each)';
GRANT EXECUTE ON FUNCTION @extschema@.spine_seek(name, integer, text, text) TO PUBLIC;
