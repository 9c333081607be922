select 'warning',
       format('replication slot %s (%s) is used by nobody%s%s', slot.slot_name, slot.slot_type,
              ' and keeps ' || pg_size_pretty(pg_wal_lsn_diff(
                case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end,
                slot.restart_lsn)) || ' of WAL',
              ', and a snapshot ' || age(coalesce(slot.xmin, slot.catalog_xmin)) || ' transactions old'),
       'WAL is kept for it until the disk is full; with a snapshot it holds back vacuum too',
       format('start its consumer, or: select pg_drop_replication_slot(%L)', slot.slot_name)
  from pg_replication_slots as slot
 where not slot.active
   and (slot.restart_lsn is not null or slot.xmin is not null)
 order by slot.restart_lsn
 limit 20
