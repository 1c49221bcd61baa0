/*
 * orders.c
 *		Start-up of all that is about orders.
 */
#include "orders/orders.h"

#include "orders/backpressure.h"
#include "orders/produced.h"
#include "orders/producer_worker.h"

void
spine_orders_init(void)
{
	spine_backpressure_init();
	spine_produced_init();
	spine_producer_worker_init();
}
