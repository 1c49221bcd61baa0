/*
 * orders.c
 *		Start-up of all that is about orders.
 */
#include "orders/orders.h"

#include "catalog/own_tables.h"
#include "orders/backpressure.h"
#include "orders/produced.h"
#include "orders/producer_worker.h"

void
spine_orders_init(void)
{
	spine_backpressure_init();
	spine_produced_init();
	spine_producer_worker_init();
	spine_own_tables_add("spine_order_totals", true);
	spine_own_tables_add("spine_order_sums", true);
	spine_own_tables_add("spine_order_counts", true);
	spine_own_tables_add("spine_order_changes", true);
}
