/*
 * orders.h
 *		The order events that spine makes for trying, testing and measuring, and what
 *		serves them.
 *
 * This folder, the SQL of orders and src/http are all that knows about tenants and
 * orders.
 */
#ifndef SPINE_ORDERS_H
#define SPINE_ORDERS_H

/*
 * Called from _PG_init, after spine_shared_init and before spine_launcher_init: defines
 * the settings, reserves shared memory, and adds the producer worker to the launcher.
 */
extern void spine_orders_init(void);

#endif							/* SPINE_ORDERS_H */
